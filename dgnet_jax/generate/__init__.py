"""Pictures and data sets painted by a trained DG-Net: `launch.py --mode=generate`, and a library.

Each task has a module whose functions take an `inference.DGNet` and return arrays: `swap`,
`interpolate`, `dataset`, and `protocol` for the FID. `command` writes them to files.
"""
