"""A page and a JSON API for a model: drop a photograph, see the answer.

Nothing is imported here: without the extra `fgjax[serve]` the command still says what is missing.
"""
