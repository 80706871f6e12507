"""The computed features of a data set, online: for the candidates of a request, from a snapshot and what came since."""

from pipelines.features.online.online_features import OnlineFeatures

__all__ = ["OnlineFeatures"]
