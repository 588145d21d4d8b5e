//! The hosts file of a machine, which belongs to the machine's user: muster keeps one block in it.

use std::fs;
use std::os::unix::fs::symlink;

use super::Site;

/// The block of machine 1's cluster, with the machine at the given address.
fn block(site: &Site, at: u8) -> String {
    format!("# begin muster site\n{} api.site.muster\n# end muster site\n", site.address(at))
}

#[test]
fn what_the_image_or_a_lease_changed_is_mended_at_every_start() {
    let site = Site::new();
    let mut image = site.image(1, 1);
    let etc = site.root(1).join("etc");
    fs::create_dir_all(&etc).expect("made");
    let own = "127.0.0.1 localhost\n";
    fs::write(etc.join("hosts"), own).expect("written");
    let one = site.start(1, &image);
    one.until_phase("ready");
    let whole = |text: &str, at: u8| text == format!("{own}{}", block(&site, at));
    one.until_hosts("has the block", |text| whole(text, 1));
    one.kill();
    // An image brings its own file at every boot.
    fs::write(etc.join("hosts"), own).expect("written");
    let one = site.start(1, &image);
    one.until_hosts("is mended", |text| whole(text, 1));
    // And while the machine runs.
    fs::write(etc.join("hosts"), own).expect("written");
    one.until_hosts("is mended now and then", |text| whole(text, 1));
    one.kill();
    // Another lease.
    image.at = Some(3);
    let one = site.start(1, &image);
    one.until_hosts("has the new address", |text| whole(text, 3));
}

#[test]
fn the_users_own_lines_stay_and_one_of_the_same_name_is_told() {
    let site = Site::new();
    let root = site.root(1);
    fs::create_dir_all(root.join("etc")).expect("made");
    fs::create_dir_all(root.join("run")).expect("made");
    symlink("../run/hosts.real", root.join("etc/hosts")).expect("linked");
    let own = b"127.0.0.1 localhost # b\xfcro\r\n10.1.1.2 scanner # muster\n10.9.9.9 api.site.muster";
    fs::write(root.join("run/hosts.real"), own).expect("written");
    let one = site.start(1, &site.image(1, 1));
    one.until_phase("ready");
    let text = one.until_explained(&["hosts:6: \"10.9.9.9 api.site.muster\" is not muster's"]);
    assert!(!text.contains("waits for nothing"), "{text}");
    let bytes = fs::read(root.join("run/hosts.real")).expect("reads");
    let (before, after) = own.split_at(own.len() - "10.9.9.9 api.site.muster".len());
    assert_eq!(bytes, [before, block(&site, 1).as_bytes(), after].concat());
    assert!(root.join("etc/hosts").symlink_metadata().expect("is there").is_symlink());
    // Told until it is mended.
    fs::write(root.join("run/hosts.real"), before).expect("written");
    one.until_explained(&["waits for nothing"]);
}
