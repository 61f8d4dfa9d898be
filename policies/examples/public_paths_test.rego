package examples.public_paths_test

import data.examples.public_paths as policy

asks(method, path) := {"request": {"method": method, "path": path}}

test_strangers_read_the_public_part if {
	every path in ["/public", "/public/", "/public/a.css", "/healthz"] {
		policy.allow with input as asks("GET", path)
	}
}

test_strangers_get_no_further if {
	every path in ["/", "/public-secret", "/PUBLIC", "/private/public", "/private;/public"] {
		not policy.allow with input as asks("GET", path)
	}
	not policy.allow with input as asks("POST", "/public")
}

test_staff_may_do_everything if policy.allow with input as object.union(asks("POST", "/x"), {"user": {"groups": ["staff"]}})
