"""The Hugging Face hub: all that is fetched from it or put on it goes through here, and whatever fails is said in one sentence.

A repository that does not exist, is gated or lacks the revision is a `UserError`, for asking again would not help; a hub
that cannot be reached is a `DarumeruError`. Where the hub is busy (429) it is asked again after the delay that it names.
"""

from darumeru.hub.changes import Kind, Standing, address, open_pull_request, read_file, standing
from darumeru.hub.data import CONVERSION, dataset_revision, dataset_rows, has_script, stream_rows
from darumeru.hub.models import is_hub_id, model_folder
from darumeru.hub.refusals import unreachable

__all__ = [
    "CONVERSION",
    "Kind",
    "Standing",
    "address",
    "dataset_revision",
    "dataset_rows",
    "has_script",
    "is_hub_id",
    "model_folder",
    "open_pull_request",
    "read_file",
    "standing",
    "stream_rows",
    "unreachable",
]
