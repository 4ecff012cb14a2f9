import sys
def test_x(tiny_encoder, tiny_roberta):
    from .oracle import gate
    from hmnet_pipe.stages.train.encoder import load_encoder, load_tokenizer
    from hmnet_pipe.stages.train.text import word_pieces
    for f in (tiny_encoder, tiny_roberta):
        load_encoder(f); t = load_tokenizer(f)
        print(t("Ada lives in xyz"), word_pieces(t, [["ada","\u200b"]]))
