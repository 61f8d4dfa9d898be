# METADATA
# title: Who may use Grafana, and as what
# description: |
#   Members of grafana-admins are Admin, of engineering Editor, of viewers Viewer; anybody else is denied. The role goes into the
#   identity JWT as grafana.role, where Grafana finds it with GF_AUTH_JWT_ROLE_ATTRIBUTE_PATH=grafana.role.
package grafana

role := "Admin" if {
	"grafana-admins" in input.user.groups
} else := "Editor" if {
	"engineering" in input.user.groups
} else := "Viewer" if {
	"viewers" in input.user.groups
}

default allow := false

allow if role

deny contains "Grafana is open to the groups grafana-admins, engineering and viewers, and you are in none of them" if {
	not role
}

claims := {"grafana": {"role": role}}
