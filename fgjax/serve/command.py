"""A page on which photographs are dropped, for a finished run or a model file.

fgjax serve --workdir=RUN                    http://127.0.0.1:8000
fgjax serve --workdir=RUN --index=FOLDER     the most similar images, too (`fgjax index add`)
fgjax serve --model=FILE                     of a model file (`fgjax export`)

It listens on this machine alone, unless --host says otherwise, keeps no photograph and changes
nothing. The JSON API's schema is at /openapi.json.
"""

import pathlib
import socket
import sys

from fgjax import command_line, main
from fgjax.errors import UserError


def command(arguments: list[str] | None = None) -> None:
    """`fgjax serve`."""
    parser = command_line.parser_of("serve", __doc__)
    command_line.add_source_options(parser)
    parser.add_argument("--index", type=pathlib.Path, help="an index to look for similar images in")
    parser.add_argument("--thumbnails", action="store_true",
                        help="show the index's images, not their names alone")  # fmt: skip
    command_line.add_rate_option(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (8000)")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if not 0 <= options.port < 65536:
        raise UserError(f"--port is {options.port}, but must be in 0 … 65535.")
    try:
        import uvicorn

        from fgjax.serve.answers import Answers
        from fgjax.serve.app import create_app
    except ImportError as error:
        raise UserError(f'fgjax serve wants {error.name}: pip install "fgjax[serve]".') from error
    source = command_line.source_of(options)
    main.setup()
    with _listening(options.host, options.port) as listening:
        if options.thumbnails:
            print("The page will show small copies of the index's images: mind their licences.")
        answers = Answers.open(
            source, index=options.index, thumbnails=options.thumbnails,
            rate=command_line.rate_of(options),
        )  # fmt: skip
        answers.warm_up()
        port = listening.getsockname()[1]
        print(f"http://{options.host}:{port}  (Ctrl+C ends)", flush=True)
        config = uvicorn.Config(create_app(answers), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that is taken before anything is loaded.

    Raises:
      UserError: it cannot be; says why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()
    except OSError as error:
        found.close()
        raise UserError(
            f"port {port} of {host} cannot be had ({error.strerror or error}): another server may "
            f"have it; choose --port={port + 1 if port < 65535 else 8001}."
        ) from error
    return found


if __name__ == "__main__":
    command_line.run(command)
