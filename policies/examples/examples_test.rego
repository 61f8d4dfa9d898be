package examples_test

import data.examples

member(groups) := {"user": {"id": "u", "email": "u@example.com", "email_verified": true, "groups": groups, "claims": {}}}

asks(groups, method, path) := object.union(member(groups), {"request": {"method": method, "path": path, "headers": {}}})

test_one_group if {
	examples.one_group.allow with input as member(["engineering"])
	not examples.one_group.allow with input as member(["sales"])
	count(examples.one_group.deny) == 0 with input as member(["engineering"])
	count(examples.one_group.deny) == 1 with input as member(["sales"])
}

test_one_domain if {
	examples.one_domain.allow with input as member([])
	not examples.one_domain.allow with input as {"user": {"email": "u@example.org", "email_verified": true}}
	not examples.one_domain.allow with input as {"user": {"email": "u@example.com", "email_verified": false}}
}

test_grafana if {
	examples.grafana.allow with input as member(["x"])
	examples.grafana.claims == {"grafana": {"role": "Viewer"}} with input as member(["x"])
	examples.grafana.claims == {"grafana": {"role": "Admin"}} with input as member(["x", "grafana-admins"])
	not examples.grafana.allow with input as member([])
	examples.grafana.deny == {"You are in no group. Ask an administrator for access."} with input as member([])
}

test_grafana_roles if {
	examples.grafana_roles.claims == {"grafana": {"role": "Editor", "orgs": ["Main Org."]}} with input as member(["engineering"])
	examples.grafana_roles.allow with input as member(["staff"])
	not examples.grafana_roles.allow with input as member(["sales"])
}

test_read_only if {
	examples.read_only.allow with input as asks(["viewers"], "GET", "/a")
	not examples.read_only.allow with input as asks(["viewers"], "POST", "/a")
	count(examples.read_only.deny) == 1 with input as asks(["viewers"], "POST", "/a")
	examples.read_only.allow with input as asks(["admins"], "POST", "/a")
	count(examples.read_only.deny) == 0 with input as asks(["admins"], "POST", "/a")
	examples.read_only.allow with input as {"request": {"method": "GET", "path": "/public/x"}}
	not examples.read_only.allow with input as {"request": {"method": "GET", "path": "/public-secret"}}
	not examples.read_only.allow with input as {"request": {"method": "POST", "path": "/public/x"}}
}

friday_noon := time.parse_rfc3339_ns("2026-01-02T11:00:00Z")

friday_night := time.parse_rfc3339_ns("2026-01-02T23:00:00Z")

test_office if {
	inside := {"request": {"client_ip": "192.0.2.7"}, "session": {"amr": ["pwd"]}}
	outside := {"request": {"client_ip": "198.51.100.7"}, "session": {"amr": ["pwd"]}}
	strong := {"request": {"client_ip": "198.51.100.7"}, "session": {"amr": ["pwd", "otp"]}}
	examples.office.allow with input as inside with time.now_ns as friday_night
	not examples.office.allow with input as outside with time.now_ns as friday_noon
	examples.office.allow with input as strong with time.now_ns as friday_noon
	not examples.office.allow with input as strong with time.now_ns as friday_night
}

test_plain_headers if {
	examples.plain_headers.headers == {"x-webauth-user": "u@example.com", "x-webauth-groups": ["a", "b"]} with input as member(["a", "b"])
	not examples.plain_headers.allow with input as {"user": {"email": "u@example.com", "email_verified": false}}
}
