//! The subnets of Pods and of Services.

use ipnet::IpNet;

use super::{Wrong, argument, text, wrong};
use crate::document::Object;

/// kubeadm's own when nobody names one: `DefaultServicesSubnet` of `apis/kubeadm/v1beta4/defaults.go`.
const SERVICES: &str = "10.96.0.0/12";
/// `MinimumAddressesInServiceSubnet`, `MinimumAddressesInPodSubnet`, `MaximumBitsForServiceSubnet` and
/// `PodSubnetNodeMaskMaxDiff` of `cmd/kubeadm/app/constants/constants.go`.
const SERVICE_ADDRESSES_MIN: u128 = 10;
const POD_ADDRESSES_MIN: u128 = 14;
const SERVICE_BITS_MAX: u8 = 20;
const NODE_MASK_DIFFERENCE_MAX: u8 = 16;

const POD_FIELD: &str = "networking.podSubnet";
const SERVICE_FIELD: &str = "networking.serviceSubnet";

pub(super) fn check(cluster: &Object) -> Result<(), Wrong> {
    let pods = text(cluster, POD_FIELD).map(|text| read(text, POD_FIELD, POD_ADDRESSES_MIN)).transpose()?;
    let said = text(cluster, SERVICE_FIELD);
    let services = read(said.unwrap_or(SERVICES), SERVICE_FIELD, SERVICE_ADDRESSES_MIN)?;
    for net in &services {
        let bits = net.max_prefix_len() - net.prefix_len();
        if bits > SERVICE_BITS_MAX {
            let least = net.max_prefix_len() - SERVICE_BITS_MAX;
            return Err(wrong(
                SERVICE_FIELD,
                format!("{net} is too large: /{least} is the largest that kubeadm takes"),
            ));
        }
    }
    let Some(pods) = pods else { return Ok(()) };
    if argument(cluster, "controllerManager", "allocate-node-cidrs").as_deref() != Some("false") {
        pods.iter().try_for_each(|net| node_mask(cluster, net))?;
    }
    fit(&pods, &services, said.is_some())
}

fn read(text: &str, field: &str, addresses_min: u128) -> Result<Vec<IpNet>, Wrong> {
    let mut nets: Vec<IpNet> = Vec::new();
    for part in text.split(',') {
        // kubeadm trims nothing either.
        let net: IpNet = part.parse().map_err(|_| wrong(field, format!("{part:?} is no subnet")))?;
        let addresses = 1_u128.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len())).unwrap_or(u128::MAX);
        if addresses < addresses_min {
            return Err(wrong(
                field,
                format!("{net} is too small: it has {addresses} addresses, {addresses_min} are the least"),
            ));
        }
        nets.push(net);
    }
    let two_families = nets.len() == 2 && nets[0].addr().is_ipv4() != nets[1].addr().is_ipv4();
    if nets.len() == 1 || two_families {
        Ok(nets)
    } else {
        Err(wrong(field, format!("{text:?} must be one subnet, or one of IPv4 and one of IPv6")))
    }
}

/// Every machine gets a part of the Pods' subnet, of a size that the controller manager is told: `getClusterNodeMask` of
/// `apis/kubeadm/validation/validation.go`.
fn node_mask(cluster: &Object, net: &IpNet) -> Result<(), Wrong> {
    let (flag, usual) = match net {
        IpNet::V4(_) => ("node-cidr-mask-size-ipv4", 24),
        IpNet::V6(_) => ("node-cidr-mask-size-ipv6", 64),
    };
    let node = match argument(cluster, "controllerManager", flag).filter(|text| !text.is_empty()) {
        None => usual,
        Some(text) => text.parse().ok().filter(|mask| *mask <= net.max_prefix_len()).ok_or_else(|| {
            wrong(
                "controllerManager.extraArgs",
                format!("{flag} is {text:?}; it must be a number up to {}", net.max_prefix_len()),
            )
        })?,
    };
    let mask = net.prefix_len();
    if mask > node {
        let why =
            format!("{net} is smaller than what every machine gets of it, a /{node}; make it larger, or say {flag}");
        return Err(wrong(POD_FIELD, why));
    }
    if node - mask > NODE_MASK_DIFFERENCE_MAX {
        let why = format!(
            "{net} is too large for machines that get a /{node} each: kubeadm takes a difference of {NODE_MASK_DIFFERENCE_MAX} at most; \
             make it a /{} or smaller, or say {flag}",
            node - NODE_MASK_DIFFERENCE_MAX
        );
        return Err(wrong(POD_FIELD, why));
    }
    Ok(())
}

/// kubeadm does not look at these, and the cluster does not work: an address that is a Pod's and a Service's, and
/// Services at addresses of a family that no Pod has.
fn fit(pods: &[IpNet], services: &[IpNet], said: bool) -> Result<(), Wrong> {
    let (field, usual) = if said { (SERVICE_FIELD, "") } else { (POD_FIELD, " (kubeadm's when none is named)") };
    for pod in pods {
        for service in services {
            if pod.contains(&service.network()) || service.contains(&pod.network()) {
                return Err(wrong(field, format!("the Services' {service}{usual} and the Pods' {pod} overlap")));
            }
        }
    }
    match services.first().filter(|service| pods.iter().all(|pod| pod.addr().is_ipv4() != service.addr().is_ipv4())) {
        None => Ok(()),
        Some(service) => {
            let why = format!("the Services' {service}{usual} is of another family than the Pods' {}", pods[0]);
            Err(wrong(field, why))
        }
    }
}
