"""SIGKILL of extract's whole process group, again and again."""

from . import running

SHARD_ROWS = 2


def test_extract_killed_thirty_times_makes_the_same_features(tmp_path):
    corpus = running.small_corpus(tmp_path / "corpus")
    start = running.prepared(tmp_path / "start", corpus, shard_rows=SHARD_ROWS)
    undisturbed = running.prepared(tmp_path / "undisturbed", corpus, shard_rows=16)
    for run in (start, undisturbed):
        running.bring_up_to_date(run, "detect")
    images = running.bring_up_to_date(undisturbed, "extract").done
    units = -(-images // SHARD_ROWS)
    found = running.kill_again_and_again("extract", start, running.made_by("extract", undisturbed), units, tmp_path)
    assert len(found) == 30
    assert sum(0 < finished < units for finished in found) >= 12  # in the middle of the work
    assert units in found  # between the last shard and the end
