package doorward.grafana_test

import data.doorward.grafana

member(groups) := {"user": {"groups": groups}}

by_role := {"Admin": ["admins"], "Editor": ["editors"], "Viewer": ["staff", "guests"]}

test_role if {
	grafana.role(by_role) == "Admin" with input as member(["staff", "admins"])
	grafana.role(by_role) == "Editor" with input as member(["staff", "editors"])
	grafana.role(by_role) == "Viewer" with input as member(["guests", "staff"])
	grafana.role({"GrafanaAdmin": ["root"], "Admin": ["root"]}) == "GrafanaAdmin" with input as member(["root"])
}

test_no_role if {
	grafana.role(by_role) == "None" with input as member(["others"])
	grafana.role(by_role) == "None" with input as member([])
	grafana.role(by_role) == "None" with input as {}
	grafana.role({}) == "None" with input as member(["admins"])
	grafana.role({"Owner": ["admins"]}) == "None" with input as member(["admins"])
	grafana.role({"Admin": "admins"}) == "None" with input as member(["admins"])
	grafana.role({"Admin": []}) == "None" with input as member(["admins"])
	grafana.role(by_role) == "None" with input as member(["Admins", "admin", "admins "])
}

by_org := {"Main Org.": ["staff"], "Lab": ["research", "staff"], "Other": []}

test_orgs if {
	grafana.orgs(by_org) == ["Lab", "Main Org."] with input as member(["staff"])
	grafana.orgs(by_org) == ["Lab"] with input as member(["research", "x"])
	grafana.orgs(by_org) == [] with input as member([])
	grafana.orgs(by_org) == [] with input as {}
}
