"""What is told of the server's processes and of the parts they stand on."""

from tollhouse_server.telemetry.declarations.declaration import Declaration, Source, counter, gauge, reading

# A label, so that a process which never looks into a part says nothing of it; without one it would say 0.
PART_UP = gauge(
    "tollhouse_part_up",
    "1 when the last look into the part (vault, database) succeeded in every process that looks, else 0.",
    "livemin",
    "part",
)
EPOCH_STALENESS = gauge(
    "tollhouse_epoch_staleness_seconds",
    "Time since the most stale process learned of changed keys and policies.",
    "livemax",
)
PROCESSES = gauge("tollhouse_processes", "Living processes by role.", "livesum", "role")

RESIDENT_MEMORY = reading(
    "tollhouse_process_resident_memory_bytes",
    "Memory of the living processes of a role.",
    "role",
    source=Source.SUPERVISOR,
)
CPU = counter(
    "tollhouse_process_cpu_seconds_total",
    "CPU time that the processes of a role have used, those that ended included.",
    "role",
    source=Source.SUPERVISOR,
)
OPEN_FILES = reading(
    "tollhouse_process_open_files",
    "File descriptors open in the living processes of a role, connections included.",
    "role",
    source=Source.SUPERVISOR,
)
RESTARTS = counter(
    "tollhouse_process_restarts_total",
    "Processes that ended without being told to and were started again, by role; 0 is expected.",
    "role",
    source=Source.SUPERVISOR,
)
EVENT_LOOP_LAG = gauge(
    "tollhouse_event_loop_lag_seconds",
    "How much too late a process of a role did what was due, at the worst in the last 15 seconds.",
    "livemax",
    "role",
)
BUILD = reading(
    "tollhouse_build_info", "1, with the version of Tollhouse that serves.", "version", source=Source.SUPERVISOR
)
STARTED = reading(
    "tollhouse_start_timestamp_seconds", "When this server was started, since 1970.", source=Source.SUPERVISOR
)

DECLARATIONS: tuple[Declaration, ...] = (
    PART_UP,
    EPOCH_STALENESS,
    PROCESSES,
    RESIDENT_MEMORY,
    CPU,
    OPEN_FILES,
    RESTARTS,
    EVENT_LOOP_LAG,
    BUILD,
    STARTED,
)
