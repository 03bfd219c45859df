"""How good a model is: its answers to a test set, metrics of them, a report.

`answerer.py` is whoever is asked, a NEO or another model.
"""
