"""What lets data go further: `Approval` and `Safeguard`, for entries of the data map."""

from datavern.privacy.datamap.approvals import Approval, Safeguard

__all__ = ["Approval", "Safeguard"]
