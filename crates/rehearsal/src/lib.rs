//! A test double of kubeadm. It has kubeadm's command line for what muster's plan runs, reads the same documents strictly,
//! uses a real CA on disk, and in the place of a control plane starts one small TLS server that checks tokens, serves
//! Nodes and keeps a membership list as etcd would. No container runs and no cluster is made, and it says so in every
//! output. How it is told what to do: [`setting`].

#![forbid(unsafe_code)]

mod arguments;
mod document;
mod failure;
mod schema;
mod setting;
