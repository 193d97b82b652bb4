"""Hands a pilot to submitit: a module-level function and a path, and resources in submitit's words."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from ndif_batch.errors import NdifBatchError, SettingsError, UnavailableError, nearest
from ndif_batch.launcher.pilot import write_order
from ndif_batch.launcher.protocol import PilotRequest

SHARED_WORDS = ("cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min")
TAKEN = ("slurm_job_name", "slurm_comment", "slurm_use_srun", "slurm_nodes", "slurm_ntasks_per_node")
"""Words that say which job is a pilot's and that it is one process: not the requester's."""
WALLTIME_MINUTES = 60
UNREACHABLE = ("Unable to contact slurm controller", "Socket timed out", "Zero Bytes were transmitted")


def resource_words() -> tuple[str, ...]:
    """The words that resources may have; those that begin with ``slurm_`` are ignored elsewhere."""
    slurm = {f"slurm_{word}" for word in submitit.SlurmExecutor._valid_parameters()}
    return (*SHARED_WORDS, *sorted(slurm - {f"slurm_{word}" for word in SHARED_WORDS} - set(TAKEN)))


def check_resources(resources: Mapping[str, Any]) -> None:
    """Raise ``SettingsError``, with all the words there are, for one that is none of them."""
    words = resource_words()
    for word in resources:
        if word not in words:
            raise SettingsError(
                f"resources: there is no word {word!r}; there are {', '.join(words)}", hint=nearest(word, words)
            )


def submit(
    root: Path,
    request: PilotRequest,
    body: Callable[[Path], None],
    executor_of: Callable[[Path, Mapping[str, Any]], submitit.Executor],
) -> submitit.Job[None]:
    """Submit ``body`` with the pilot's folder to the executor of that folder and resources.

    If that fails, the folder goes.
    """
    check_resources(request.resources)
    folder = write_order(root, request)
    try:
        executor = executor_of(folder, {"timeout_min": WALLTIME_MINUTES, **request.resources})
        with redirect_stderr(StringIO()):  # submitit repeats what sbatch says; the error has it, too
            return executor.submit(body, folder)
    except NdifBatchError:
        shutil.rmtree(folder)
        raise
    except FailedJobError as error:
        shutil.rmtree(folder)
        raise refusal(str(error)) from None
    except (AssertionError, TypeError, ValueError) as error:
        shutil.rmtree(folder)
        raise SettingsError(f"resources: {error}") from None
    except (OSError, RuntimeError) as error:
        shutil.rmtree(folder)
        raise UnavailableError(f"no pilot can start: {error}") from None


def refusal(said: str) -> SettingsError | UnavailableError:
    """The error for what sbatch said."""
    lines = [line.strip() for line in said.splitlines() if "error:" in line] or said.splitlines()[-1:]
    if any(sign in said for sign in UNREACHABLE):
        return UnavailableError(f"Slurm cannot be reached: {'; '.join(lines)}")
    return SettingsError(f"Slurm refused the pilot: {'; '.join(lines)}")
