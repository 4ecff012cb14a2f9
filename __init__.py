"""hmnet-pipe: multimodal entity and relation extraction with HMNeT on a cache of visual features.

Importing the package is cheap: nothing heavy (torch, transformers, dask) is loaded until a stage needs it.
"""

__version__ = "0.1.0"
