# METADATA
# title: What Envoy's access log shall know of the person
# description: >-
#   metadata is Envoy's dynamic metadata of the filter envoy.filters.http.ext_authz: %DYNAMIC_METADATA(envoy.filters.http.ext_authz:tier)% in a
#   log's format. It is there for denied requests too. Logs are kept long and read by many, so it says no more than it must.
package examples.access_log

import data.doorward.user

allow if input.user

default tier := "standard"

tier := "gold" if user.in_group("gold-customers")

metadata := {"subject": input.user.id, "tier": tier}
