"""`hmnet-pipe archive`: compress a run's features, or restore them.

Their contents, and so whatever depends on them, stay the same.
"""

import time

from ...cache.reader import FeatureCache
from ...cache.shards import rewrite_shard
from ...manifests.files import remove_temporaries
from ...manifests.run import DEFAULT_SET, RunFolder
from ...stages.base.tools import SILENT, Tools
from .config import RunConfig
from .runner import Report, disk_errors, locked

__all__ = ["archive_run"]


def archive_run(
    run: RunFolder, feature_set: str = DEFAULT_SET, *, restore: bool = False, tools: Tools = SILENT
) -> Report:
    """Rewrite every shard of a feature set in the archive layout, or with `restore` in the contiguous one.

    A kill at any moment leaves each shard whole in one of the two layouts, and the same command continues.
    Raises StageError where `run` has no such features, where extract is running, or where a shard is damaged
    (it and those after it stay as they are), and ArchiveError without hdf5plugin.
    """
    started = time.monotonic()
    stage = RunConfig.read(run.config).stage("extract", run, feature_set)
    folder = stage.place
    with disk_errors(stage), locked(stage, tools.say):
        remove_temporaries(folder)
        paths = [folder / name for name in FeatureCache(folder).shards()]
        before = sum(path.stat().st_size for path in paths if path.is_file())
        bar = tools.bar(len(paths), "restore" if restore else "archive", "shard")
        rewritten = 0
        for path in paths:
            rewritten += rewrite_shard(path, archived=not restore)
            bar.update()
        bar.close()
        after = sum(path.stat().st_size for path in paths)
    return Report(
        "archive",
        "done" if rewritten else "fresh",
        "shards",
        done=rewritten,
        skipped=len(paths) - rewritten,
        failed=0,
        seconds=time.monotonic() - started,
        output=folder,
        details={"bytes": {"before": before, "after": after}},
    )
