"""Entry point of `tollhouse`. Only what is asked for is loaded: help needs neither gRPC nor a stub."""

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tollhouse_admin.failures import EXIT_CODE_MEANINGS, ExitCode, Failure, report, wrong_usage
from tollhouse_admin.plain_text import is_unicode

COMMANDS: Mapping[str, tuple[str, str]] = {
    "config": ("config", "Which server to talk to, with which key."),
    "top": ("top", "How it is going, now: calls, spend, budgets, breakers."),
    "doctor": ("doctor", "What is wrong, and what to do about it."),
    "generate": ("generate", "Send a prompt and see the answer, its price and its way."),
    "embed": ("embed", "Embed texts."),
    "count-tokens": ("count_tokens", "Count the tokens of a prompt."),
    "models": ("models", "Which tiers and models there are, what they cost; adding and ending models."),
    "usage": ("usage", "What the caller used, may still use, and its receipts."),
    "receipts": ("receipts", "What the ledger keeps of calls, signed; checked without a server."),
    "report": ("report", "What was used and what it cost, for finance."),
    "deliveries": ("deliveries", "Statements that go out by themselves, into a folder or by e-mail."),
    "forecast": ("forecast", "What this month will have cost, and what to set aside."),
    "simulate": ("simulate", "A month replayed against other limits, prices or routes."),
    "returns": ("returns", "What work costs otherwise, for the return on investment."),
    "reconcile": ("reconcile", "Google's bill, held against what the ledger booked."),
    "charge-rules": ("charge_rules", "Mark-ups and discounts on the list price."),
    "allocations": ("shared_costs", "Costs that departments share, and how they are spread."),
    "wallets": ("wallets", "Money paid in advance."),
    "currencies": ("currencies", "Rates of currencies, and which one a tenant reads."),
    "labels": ("bound_labels", "Labels on every record, whatever callers say."),
    "exports": ("usage_exports", "Months of usage records: exported, confirmed, dropped."),
    "apply": ("apply", "Make a tenant what a file says, all of it or nothing."),
    "export": ("export", "A tenant as a file."),
    "tenants": ("tenants", "The companies or subsidiaries that share one Tollhouse."),
    "departments": ("departments", "The tree to which cost is charged."),
    "projects": ("projects", "What spends money within a department."),
    "principals": ("principals", "The users and service accounts of a tenant."),
    "keys": ("keys", "The API keys with which Tollhouse is called."),
    "identity-providers": ("identity_providers", "Whose tokens are accepted, and what their groups mean."),
    "client-identities": ("client_identities", "Whose certificates are accepted, and as whom."),
    "devices": ("devices", "What runs models itself, and reports it with signed receipts."),
    "groups": ("groups", "Principals who have the same rights."),
    "audit": ("audit", "Who did what: searched, followed, taken out, and proved to be whole."),
    "roles": ("roles", "Who may do what, and where."),
    "access": ("access", "Whether somebody may do something, and why."),
    "content": ("contents", "Prompts and answers that are kept, who reads them, and their end."),
    "limits": ("limits", "Quotas and budgets."),
    "ledger": ("ledger", "What is in suspense, and whether the ledger adds up."),
    "data-policies": ("data_policies", "What is hidden or blocked in prompts and answers."),
    "prices": ("prices", "What a unit of each model costs, with effective dates."),
    "catalogue": ("catalogue", "Where models come from; whole catalogues as files."),
    "accounts": ("accounts", "The Google Cloud projects with which Gemini is called."),
    "routes": ("routes", "Where a call would go and why, tiers, and routing policies."),
    "targets": ("targets", "Where the calls of each tier can go, and how it is going there."),
    "breakers": ("breakers", "Targets that are left alone because they fail, or by order."),
    "upstream": ("upstream", "The live state of every target."),
    "upstream-keys": ("upstream_keys", "The keys with which Gemini is called; they live in Vault."),
}


class LazyGroup(TyperGroup):
    """The top of the command tree: knows every noun by one line, and loads the one that is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, purpose) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=purpose))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Ask for help on behalf of who gave nothing."""
        return super().parse_args(ctx, args or ([] if ctx.resilient_parsing else ["--help"]))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the noun that is called, loaded."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and load(str(name)), rest


def load(name: str) -> Any:
    """Return the command or group called `name`, importing its module."""
    module = importlib.import_module(f"tollhouse_admin.commands.{COMMANDS[name][0]}")
    return typer.main.get_command(module.app)


EPILOG = "Exit codes: " + ", ".join(f"{code.value} {EXIT_CODE_MEANINGS[code]}" for code in ExitCode) + "."

app = typer.Typer(cls=LazyGroup, help="Administer and use Tollhouse.", epilog=EPILOG, rich_markup_mode="rich")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        sys.stdout.write(f"tollhouse {metadata.version('tollhouse')}\n")
        raise typer.Exit


@app.callback()
def top(*, version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False) -> None:
    """Hold the options that stand before a noun."""


def execute(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; what can be expected to fail is told in one line."""
    if not all(map(is_unicode, arguments)):
        report(wrong_usage("An argument is not UTF-8 text", "Set LANG to a UTF-8 locale."), verbose=False)
        return ExitCode.USAGE
    try:
        result = typer.main.get_command(app).main(list(arguments), prog_name="tollhouse", standalone_mode=False)
    except typer.TyperException as error:
        report(wrong_usage(error.format_message(), "'tollhouse ... --help' shows what is possible"), verbose=False)
        return ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("interrupted\n")
        return ExitCode.INTERRUPTED
    return int(result or 0)


def report_fault(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that the command line itself is at fault; all of it with --verbose."""
    if "--verbose" in sys.argv:
        traceback.print_exception(kind, fault, trace)
    message, advice = f"{kind.__name__}: {fault}", "This is a fault of the command line; --verbose shows more"
    report(Failure(reason="INTERNAL", message=message, advice=advice, exit_code=ExitCode.GENERAL), verbose=False)


def main() -> int:
    """Run as a program: return the exit code for the process."""
    sys.excepthook = report_fault
    return execute(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
