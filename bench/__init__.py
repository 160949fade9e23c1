"""The benchmarks: what users run, what RESULTS.md states, and searches for faults.

- ``cli``: the commands of ``strop bench``.
- ``harness``: engines, peers, and the duel in which they are timed side by side.
- ``records``: figures with their bounds, and records of duels; read, judged, compared.
- ``pages``: records as tables, plots and pages; ``readme`` writes the repository's own.
- ``models``: the models that benchmarks and tests build.
- ``suites``: what ``strop bench --suite`` and ``python -m strop.bench`` measure.
- ``measures``: measurements of one figure each; every module is a command.
- ``sweeps``: searches for faults over many models; every package is a command.
- ``mutants``: small errors made on purpose in strop itself, and the tests that notice them.
- ``processes``: processes that benchmarks start.
- ``results``: the records of this checkout.
"""
