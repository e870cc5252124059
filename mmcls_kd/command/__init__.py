"""The commands: one module a verb, named as the verb; ``python -m mmcls_kd VERB`` calls its ``main``.

A module of a verb imports torch and what stands on it inside of functions, once the command line is parsed.
"""
