"""What both sides of a job speak: names, plans, overrides and recipes. Standard library only, Python >= 3.9.

It is shipped with the runner, imports nothing else of this package, and is the one place where the meaning of a config
is written. Names are in :mod:`~nemo_airflow.language.names`, configs without Fiddle in
:mod:`~nemo_airflow.language.configs`.
"""
