"""A cloud that computes, on this machine: the calls that the DAGs make to AWS, answered by work that is really done.

It stands on its own. It imports nothing of the rest of the repository: it is the stranger that AWS is.
"""
