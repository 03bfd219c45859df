"""Drawn pictures with questions and answers, from nothing but a seed and an index.

`generate(seed, index)` is what the small demo model learns from; `contact_sheet` shows it.
"""

from neo.synthetic.generate import DEFAULT_WEIGHTS, FAMILIES, corpus, generate
from neo.synthetic.matching import matches
from neo.synthetic.sample import Sample, Turn
from neo.synthetic.sheet import contact_sheet

__all__ = ["DEFAULT_WEIGHTS", "FAMILIES", "Sample", "Turn", "contact_sheet", "corpus", "generate", "matches"]
