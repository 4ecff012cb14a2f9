"""SIGKILL of detect's whole process group, again and again."""

from . import running

CHUNK = 2


def test_detect_killed_thirty_times_makes_the_same_detections(tmp_path):
    corpus = running.small_corpus(tmp_path / "corpus")
    start = running.prepared(tmp_path / "start", corpus, chunk=CHUNK)
    undisturbed = running.prepared(tmp_path / "undisturbed", corpus, chunk=32)
    images = running.bring_up_to_date(undisturbed, "detect").done
    units = -(-images // CHUNK)
    found = running.kill_again_and_again("detect", start, running.made_by("detect", undisturbed), units, tmp_path)
    assert len(found) == 30
    assert sum(0 < finished < units for finished in found) >= 12  # in the middle of the work
    assert units in found  # between the last chunk and the end
