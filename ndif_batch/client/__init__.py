"""The user's side: prepare and submit experiments, follow jobs, read results. No torch until something runs here."""

from __future__ import annotations

from ndif_batch.client.client import Client
from ndif_batch.client.completed import TaskResult, as_completed
from ndif_batch.client.handle import JobHandle
from ndif_batch.client.language_model import LanguageModel
from ndif_batch.client.local_worker import LocalWorker
from ndif_batch.client.plan import Plan

__all__ = ["Client", "JobHandle", "LanguageModel", "LocalWorker", "Plan", "TaskResult", "as_completed"]
