"""What the shell offers for tiers and models, from the server's catalogue."""

from collections.abc import Iterator

from tollhouse.v1 import catalog_pb2, catalog_pb2_grpc

from tollhouse_admin.completion import offered
from tollhouse_admin.connection import Connection


def complete_tiers(incomplete: str) -> list[str]:
    """Offer the tiers."""

    def entries(connection: Connection) -> Iterator[str]:
        stub = connection.stub(catalog_pb2_grpc.CatalogServiceStub)
        for tier in connection.pages(stub.ListTiers, catalog_pb2.ListTiersRequest(), "tiers", limit=500):
            yield tier.name

    return offered(incomplete, entries)


def complete_models(incomplete: str) -> list[str]:
    """Offer the models."""

    def entries(connection: Connection) -> Iterator[str]:
        stub = connection.stub(catalog_pb2_grpc.CatalogServiceStub)
        for model in connection.pages(stub.ListModels, catalog_pb2.ListModelsRequest(), "models", limit=500):
            yield model.name

    return offered(incomplete, entries)
