"""The address of a scheduler is looked at before anything waits for it."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.pipeline.cli import main
from hmnet_pipe.pipeline.cluster.dask import check_address
from hmnet_pipe.pipeline.run.presets import preset


@pytest.mark.parametrize("address", ["foo", "tcp://foo", "tcp://:8786", "host:port", "", "a b:8786"])
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(InputError, match=r"is no address; give one such as tcp://host:8786"):
        check_address(address)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8786", "tls://host.of.site:1", "host:8786", "tcp://[::1]:8786"]
)
def test_addresses_as_dask_prints_them_are_taken(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("command", ["detect", "extract", "verify", "finetune"])
def test_commands_say_nothing_before_they_refuse_an_address(tmp_path: Path, command: str) -> None:
    preset("custom", task="ner", text=tmp_path, images=None, format="auto").write(tmp_path / "run.toml")
    done = CliRunner().invoke(main, [command, str(tmp_path), "--scheduler", "foo"])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr == "Error: --scheduler 'foo' is no address; give one such as tcp://host:8786\n"
