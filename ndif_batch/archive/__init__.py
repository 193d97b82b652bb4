"""The Zarr stores with the results: written whole, read by anyone."""
