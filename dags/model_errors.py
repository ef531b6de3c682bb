"""### Model errors

Makes no DAG. When a folder under `include/models` cannot be used, this file fails to import on purpose: the UI then
shows under *Dag Import Errors* which file, which key and why, while the DAGs of all other models go on.

`python -m include.cli check-models` finds the same, and more, before a merge. Airflow retries the import at each parse.
"""

from __future__ import annotations

from include.config import InvalidModel, broken_models

if broken := broken_models():
    raise InvalidModel("\n".join(broken))
