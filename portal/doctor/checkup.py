"""All checks, and how their diagnoses are shown."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from portal.doctor import database_checks, local_checks, network_checks, service_checks
from portal.doctor.connection_budget import Processes
from portal.doctor.diagnoses import Diagnosis, State, Topic


def topics(web_processes: int = 2, workers: int = 1) -> Sequence[Topic]:
    """Return all checks. The numbers are those of the processes of all machines."""
    database = database_checks.topic(Processes(web_processes, workers))
    return *local_checks.TOPICS, database, *service_checks.TOPICS, *network_checks.TOPICS


def as_text(diagnoses: Sequence[Diagnosis]) -> str:
    """Return the diagnoses for a person, and a line that counts them."""
    width = max(len(diagnosis.state) for diagnosis in diagnoses)
    lines = []
    for diagnosis in diagnoses:
        lines.append(f"{diagnosis.state.upper():{width}}  {diagnosis.name}: {diagnosis.seen}")
        if diagnosis.advice:
            lines.append(f"{'':{width}}  → {diagnosis.advice}")
    counts = {state: sum(diagnosis.state is state for diagnosis in diagnoses) for state in State}
    return "\n".join((*lines, "", ", ".join(f"{count} {state}" for state, count in counts.items() if count)))


def as_json(diagnoses: Sequence[Diagnosis]) -> str:
    """Return the diagnoses for a script."""
    result = {"ok": not has_failed(diagnoses), "checks": [asdict(diagnosis) for diagnosis in diagnoses]}
    return json.dumps(result, indent=2, ensure_ascii=False)


def has_failed(diagnoses: Sequence[Diagnosis]) -> bool:
    """Return whether a check failed. A warning is not a failure."""
    return any(diagnosis.state is State.FAILED for diagnosis in diagnoses)
