"""Stands in for VLMEvalKit, which is on no package index: its names and signatures, on which the adapter relies.

Questions are rows that a test puts into `dataset.TABLES`; scores have the form of VLMEvalKit's, by exact match.
"""
