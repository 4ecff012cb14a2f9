"""Work on Dask, within the memory of the machine."""
