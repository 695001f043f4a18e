"""The Zarr trace: arrays, bits, masks, and reading them back verified."""
