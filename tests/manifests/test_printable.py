"""What is printed of data cannot steer a terminal or forge a line."""

import unicodedata

import pytest
from hmnet_pipe.manifests.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Ærø, 北京, हिन्दी, \U0001f469‍\U0001f52c", "plain, Ærø, 北京, हिन्दी, \U0001f469‍\U0001f52c"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x9b5m\x7f\0", r"\x9b5m\x7f\x00"),
        ("gpj.exe\u202egnp", r"gpj.exe\u202egnp"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), r"caf\udce9"),
    ],
)
def test_what_steers_a_terminal_is_escaped_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_no_control_character_of_unicode_is_left() -> None:
    everything = "".join(map(chr, range(0x110000)))
    left = printable(everything)
    embedding = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    assert not [c for c in left if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [c for c in left if unicodedata.bidirectional(c) in embedding]
    assert len(left.splitlines()) == 1


def test_what_a_terminal_lacks_is_escaped_too() -> None:
    assert printable("Ærø 北", "ascii") == r"\xc6r\xf8 \u5317"
    assert printable("Ærø 北", "latin-1") == r"Ærø \u5317"
