"""Verifies a token with PyJWT, as an application behind Doorward would.

Usage: verify.py JWKS_URL ISSUER AUDIENCE, with the token on standard input. Prints its claims as JSON and exits with 0, or the
reason why it is refused and exits with 1.
"""

import json
import sys

import jwt

jwks_url, issuer, audience = sys.argv[1:]
token = sys.stdin.read()
try:
    key = jwt.PyJWKClient(jwks_url, timeout=10).get_signing_key_from_jwt(token)
    claims = jwt.decode(
        token,
        key,
        algorithms=["ES256"],
        issuer=issuer,
        audience=audience,
        options={"require": ["iss", "aud", "sub", "exp", "nbf", "iat", "jti"]},
    )
except jwt.PyJWTError as err:
    print(f"refused: {type(err).__name__}")
    sys.exit(1)
print(json.dumps(claims))
