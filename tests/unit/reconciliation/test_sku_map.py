"""What Google calls a SKU, in the words of the price book; as bills and Google's SKU groups write them."""

from datetime import date

import pytest
from tollhouse_server.errors import InvalidRequest
from tollhouse_server.reconciliation.sku_map import SkuMap, Target, packaged_map, parse_map

DAY = date(2026, 10, 7)


def target(sku: str, *, rules: SkuMap | None = None, service: str = "Gemini API", day: date = DAY) -> Target | None:
    """Return what a SKU stands for."""
    found = rules or packaged_map()
    return found.target(service_id="", service=service, sku_id="F00D", sku=sku, day=day)


@pytest.mark.parametrize(
    ("description", "model", "sku"),
    [
        ("Generate content input token count gemini 3.8 flash text", "gemini-3.8-flash", "input_text"),
        ("Generate content input token count gemini 2.5 flash lite", "gemini-2.5-flash-lite", "input_text"),
        ("Generate content input token count gemini 2.5 flash short input text", "gemini-2.5-flash", "input_text"),
        ("Generate content input token count Gemini 2.5 Pro long input text", "gemini-2.5-pro", "input_text"),
        ("Generate content input token count gemini 3 flash text flex", "gemini-3-flash", "input_text"),
        ("Generate_content input token count gemini 3.8 flash audio batch", "gemini-3.8-flash", "input_audio"),
        ("Generate content cached input token count gemini 3.8 flash text", "gemini-3.8-flash", "cached_text"),
        ("Generate content output token count gemini 4 argon text", "gemini-4-argon", "output_text"),
        ("Generate content output token count gemini 3.8 flash image", "gemini-3.8-flash", "output_image"),
        ("Gemini 3.8 Flash Global Text Input - Predictions", "gemini-3.8-flash", "input_text"),
        ("Gemini 2.5 Flash GA Text Input - Predictions", "gemini-2.5-flash", "input_text"),
        ("Gemini 2.5 Flash GA Thinking Text Output - Predictions", "gemini-2.5-flash", "output_text"),
        ("Gemini 2.0 Flash Text Input - Batch Predictions", "gemini-2.0-flash", "input_text"),
        ("Gemini 3 Flash Text Input Caching", "gemini-3-flash", "cached_text"),
        ("Gemini 3 Flash Text Input Caching Storage", "gemini-3-flash", "cache_storage"),
    ],
)
def test_a_sku_of_google_is_known_by_its_description(description: str, model: str, sku: str) -> None:
    """Both services, with and without what does not matter."""
    assert target(description) == Target(model=model, sku=sku)


def test_what_no_rule_knows_is_unknown_of_our_services_and_ignored_of_others() -> None:
    """A virtual machine is no business of ours, and neither is training on Vertex AI."""
    assert target("Telepathy token count") is None
    assert target("N1 Predefined Instance Core", service="Compute Engine") == Target(ignored=True)
    assert target("Custom training", service="Vertex AI") == Target(ignored=True)


def test_thinking_and_preview_names_are_folded_as_google_bills_them() -> None:
    """The ledger knows more kinds than the bill."""
    found = packaged_map()

    assert (found.folded("thoughts"), found.folded("output_text")) == ("output_text", "output_text")
    assert (found.folded("gemini-3-flash-preview"), found.folded("gemini-4-argon")) == (
        "gemini-3-flash",
        "gemini-4-argon",
    )


def test_rules_of_a_file_come_before_the_packaged_ones_within_their_dates() -> None:
    """From its first day on, and no more on the day that it ends."""
    rules = parse_map(
        '[[rule]]\nid = "F00D"\nmodel = "gemini-5"\nsku = "input_text"\nfrom = 2026-10-07\nuntil = 2026-10-09\n'
    ).over(packaged_map())
    text = "Generate content input token count gemini 3.8 flash text"

    found = [target(text, rules=rules, day=date(2026, 10, day)) for day in (6, 7, 8, 9)]

    assert [one and one.model for one in found] == ["gemini-3.8-flash", "gemini-5", "gemini-5", "gemini-3.8-flash"]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[[rule]]\nmodel = "m"\nsku = "s"', "rule[0]"),
        ('[[rule]]\nid = "F"\npattern = "p"\nmodel = "m"\nsku = "s"', "rule[0]"),
        ('[[rule]]\nid = "F"', "rule[0]"),
        ('[[rule]]\npattern = "("\nmodel = "m"\nsku = "s"', "rule[0].pattern"),
        ('[[rule]]\nid = "F"\nmodel = "m"\nsku = "s"\nfrom = "soon"', "rule[0].from"),
        ('[[rule]]\nid = "F"\nmodel = "m"\nsku = "s"\nprice = 1', "rule[0].price"),
        ("[[fold]]\nskus = 3", "fold[0].skus"),
        ("rule = 3", "rule"),
        ("[[rules]]", "rules"),
        ("nonsense", "content"),
    ],
)
def test_a_defect_of_a_file_of_rules_is_named(text: str, path: str) -> None:
    """Nothing of the file is used."""
    with pytest.raises(InvalidRequest) as refused:
        parse_map(text)

    assert refused.value.violations[0].path == path


def test_a_file_of_rules_that_is_nested_without_an_end_is_refused() -> None:
    """As every other thing that is not TOML."""
    with pytest.raises(InvalidRequest, match="is not TOML"):
        parse_map("a=" + "[" * 3000)
