"""Tests of slugs, spellings and aliases of retailers."""

from __future__ import annotations

import string
from decimal import Decimal

import pytest
from bson import Code, Decimal128, Int64
from hypothesis import given
from hypothesis import strategies as st

from imgassets.settings import SourceSettings
from imgassets.sources.listing import Anomaly, Unpartitioned
from imgassets.sources.retailers import Retailer, Retailers, retailer_slug


@given(st.text())
def test_a_slug_is_a_safe_partition_key_or_none(name: str) -> None:
    slug = retailer_slug(name)
    assert slug is None or set(slug) <= set(string.ascii_lowercase + string.digits + "-")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Zara", "zara"),
        ("Nord & Sol", "nord-sol"),
        ("H&M | Women/Men, 20%", "h-m-women-men-20"),
        ("Ünïcødé", "unicode"),
        ("a" * 100, "a" * 64),
        ("!!!", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_retailer_names_become_slugs(name: object, slug: str | None) -> None:
    assert retailer_slug(name) == slug


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("Zara", ("zara", "Zara")),
        (" ZARA ", ("zara", " ZARA ")),
        ("Zára", ("zara", "Zára")),
        ("ZARA HOME ES", ("zara-home", "ZARA HOME ES")),
        ("Zara-Home ES", ("zara-home", "Zara-Home ES")),
        ("Mango Outlet", ("mango", "Mango Outlet")),
        (42, ("42", "42")),
        (Int64(42), ("42", "42")),
        (42.0, ("42", "42")),
        (7, ("zara", "7")),
        (["Zara"], ("zara", "Zara")),
        ([42.0], ("42", "42")),
        (Decimal(42), ("42", "42")),
        (Decimal128("42.0"), ("42", "42")),
        (["Zara", "ZARA"], ("zara", "ZARA")),
        (["Zara", None, "?!"], ("zara", "Zara")),
    ],
)
def test_a_value_is_the_name_of_a_retailer(value: object, found: tuple[str, str]) -> None:
    aliases = {"ZARA HOME ES": "zara-home", "mango-outlet": "mango", "7": "zara"}
    retailers = Retailers.from_settings(SourceSettings(retailer_aliases=aliases))
    assert retailers.resolve(value) == Retailer(*found)


@pytest.mark.parametrize(
    ("value", "anomaly", "detail"),
    [
        (None, "no_retailer", "the retailer is None"),
        ("", "no_retailer", "the retailer is ''"),
        ("?!", "no_retailer", "the retailer is '?!'"),
        (True, "no_retailer", "the retailer is True"),
        (4.5, "no_retailer", "the retailer is 4.5"),
        (float("nan"), "no_retailer", "the retailer is nan"),
        (float("inf"), "no_retailer", "the retailer is inf"),
        (Decimal128("4.5"), "no_retailer", "the retailer is Decimal128('4.5')"),
        (
            {"name": "Zara"},
            "no_retailer",
            "the retailer is {'name': 'Zara'}; name the field in it that is the name in "
            "source.fields.retailer: name",
        ),
        (Decimal("sNaN"), "no_retailer", "the retailer is Decimal('sNaN')"),
        (Code("Zara"), "no_retailer", "the retailer is Code('Zara', None)"),
        ([], "no_retailer", "the retailer is []"),
        ([["Zara"]], "no_retailer", "the retailer is [['Zara']]"),
        (
            ["Zara", "Mango"],
            "several_retailers",
            "the retailer is ['Zara', 'Mango']; write one name, or a document per retailer",
        ),
    ],
)
def test_a_value_that_names_no_retailer_is_an_anomaly(
    value: object, anomaly: str, detail: str
) -> None:
    retailers = Retailers.from_settings(SourceSettings())
    assert retailers.resolve(value) == Unpartitioned(Anomaly(anomaly), detail)


def test_a_fixed_retailer_is_that_of_all_documents_and_can_have_an_alias() -> None:
    settings = SourceSettings(retailer="Zara ES", retailer_aliases={"zara es": "zara"})
    retailers = Retailers.from_settings(settings)
    for value in ("Mango", None, ["a", "b"]):
        assert retailers.resolve(value) == Retailer("zara", "Zara ES")
