"""Looking at data before learning from it: what is wrong with it, how much it is, what the model will see of it.

`walk.py` goes over records in parallel; `check.py`, `stats.py`, `preview.py` and `convert.py` are the commands
`neo data ...`.
"""
