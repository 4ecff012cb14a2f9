"""The address of a scheduler is looked at before anything waits for it."""

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.pipeline.cluster.dask import Cluster


@pytest.mark.parametrize("address", ["foo", "tcp://foo", "tcp://:8786", "host:port", "", "a b:8786"])
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(InputError, match=r"is no address; give one such as tcp://host:8786"):
        Cluster(address, None, print)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8786", "tls://host.of.site:1", "host:8786", "tcp://[::1]:8786"]
)
def test_addresses_as_dask_prints_them_are_taken(address: str) -> None:
    Cluster(address, None, print)
