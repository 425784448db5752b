"""A DSN as each driver wants it: operators write it with whatever scheme their other tools take."""

from sqlalchemy.engine import URL, make_url


def engine_url(dsn: str) -> URL:
    """Return `dsn` for SQLAlchemy on asyncpg; `str` of it hides the password.

    Raises:
        ArgumentError: it is not a URL.
    """
    return make_url(dsn).set(drivername="postgresql+asyncpg")


def plain_dsn(dsn: str) -> str:
    """Return `dsn` for asyncpg alone, which knows no `+driver`. The password is in it: not for logs.

    Raises:
        ArgumentError: it is not a URL.
    """
    return make_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)
