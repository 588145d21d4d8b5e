//go:build tools

package testbed

import (
	_ "github.com/onsi/ginkgo/v2"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/e2e_kubeadm"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
