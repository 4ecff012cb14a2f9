"""What a request that is not answered is told: a status, and one sentence."""

from starlette.responses import JSONResponse, Response

__all__ = ["Refusal"]


class Refusal(Exception):
    """A request is not answered. Its text is one sentence for the sender; status is that of HTTP."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        return JSONResponse({"error": str(self)}, self.status, self.headers)
