//go:build tools

package testbed

import (
	_ "github.com/flannel-io/flannel"
)
