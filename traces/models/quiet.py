"""Silencing of transformers' load reports and progress bars, never of errors."""

from __future__ import annotations

import logging as log
from collections.abc import Iterator
from contextlib import contextmanager

REPORTER = "transformers.modeling_utils"
REPORT = "LOAD REPORT"


class _NoReport(log.Filter):
    """Holds the tables of weights back, and nothing else that the module says."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[log.LogRecord] = []

    def filter(self, record: log.LogRecord) -> bool:
        report = REPORT in record.getMessage()
        if report:
            self.held.append(record)
        return not report


@contextmanager
def without_load_report() -> Iterator[None]:
    """Drop the bars of transformers, and its load report unless the block fails; all else that it says passes.

    Only for a caller that checks ``output_loading_info`` or the weights' names itself.
    """
    from transformers.utils import logging

    bars, reporter, silenced = logging.is_progress_bar_enabled(), log.getLogger(REPORTER), _NoReport()
    logging.disable_progress_bar()
    reporter.addFilter(silenced)
    try:
        yield
    except Exception:
        reporter.removeFilter(silenced)
        for record in silenced.held:  # the error may refer to it
            reporter.handle(record)
        raise
    finally:
        reporter.removeFilter(silenced)
        if bars:
            logging.enable_progress_bar()
