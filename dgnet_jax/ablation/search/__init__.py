"""A search over weights of losses and their parameters, with Optuna: `launch.py --mode=search`.

`search.Search` is the search itself; its folder is that of a study, with `search.json` and Optuna's
journal beside it, so that tables and report of a study work on it.
"""
