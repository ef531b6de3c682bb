"""Lets every component of Airflow import what lies in the folder of the DAGs.

Airflow puts that folder on the path where it parses or runs a DAG, but not in the triggerer, which needs the triggers of
`include/`. All components load plugins, the triggerer before it forks the process that runs triggers. Where the folder is on the
path already, or is not there, as in a managed web server, nothing changes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from airflow.configuration import conf

folder = conf.get("core", "dags_folder", fallback="")
if folder not in sys.path and (Path(folder) / "include" / "__init__.py").is_file():
    sys.path.append(folder)
