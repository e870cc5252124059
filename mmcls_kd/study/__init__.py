"""A study: methods × seeds × pairs of networks through the ordinary tools, its statistics and its report.

Nothing is imported here, so that a report can be made without torch.
"""
