// Verifies a token with jose, as an application behind Doorward would.
//
// Usage: node verify.mjs JWKS_URL ISSUER AUDIENCE, with the token on standard input. Prints its claims as JSON and exits with 0, or the
// reason why it is refused and exits with 1. DOORWARD_NODE_MODULES is the folder that holds jose.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const modules = createRequire(join(process.env.DOORWARD_NODE_MODULES, "..", "package.json"));
const { createRemoteJWKSet, jwtVerify, errors } = await import(pathToFileURL(modules.resolve("jose")));

const [url, issuer, audience] = process.argv.slice(2);
const token = readFileSync(0, "utf8");
try {
  const { payload } = await jwtVerify(token, createRemoteJWKSet(new URL(url), { timeoutDuration: 10000 }), {
    algorithms: ["ES256"],
    issuer,
    audience,
    requiredClaims: ["iss", "aud", "sub", "exp", "nbf", "iat", "jti"],
  });
  console.log(JSON.stringify(payload));
} catch (err) {
  if (!(err instanceof errors.JOSEError)) throw err;
  console.log(`refused: ${err.code}`);
  process.exit(1);
}
