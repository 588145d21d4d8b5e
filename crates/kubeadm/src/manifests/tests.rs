use proptest::prelude::*;
use serde_json::json;

use super::*;

fn file(name: &str, text: &str) -> ManifestFile {
    ManifestFile { name: name.to_owned(), contents: Secret::new(text) }
}

fn read(text: &str) -> Result<Manifests, String> {
    let shown = |errors: Vec<ManifestError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    Manifests::read(&[file("a.yaml", text)]).map_err(shown)
}

fn one(text: &str) -> Object {
    read(text).expect("reads").get(0).expect("is one").clone()
}

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

#[test]
fn namespaces_and_definitions_come_first_and_the_rest_stays_in_order() {
    let crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: dogs.example.org}";
    let first = file("10.yaml", &format!("# a site's own\n---\n{CONFIG}---\n# nothing\n---\n{crd}\n"));
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "example.org/v1", "kind": "Dog", "metadata": { "name": "rex", "namespace": "pets" } },
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "pets" } },
    ]});
    let second = file("20.json", &list.to_string());
    let all = Manifests::read(&[first, second]).expect("reads");
    let shown: Vec<String> = (0..all.count()).filter_map(|number| all.get(number)).map(ToString::to_string).collect();
    let expected = [
        "Namespace pets (20.json, document 1, item 2)",
        "CustomResourceDefinition dogs.example.org (10.yaml, document 3)",
        "ConfigMap a (10.yaml, document 1)",
        "Dog pets/rex (20.json, document 1, item 1)",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn values_mean_what_kubernetes_takes_them_for() {
    let object =
        one(&format!("{CONFIG}mode: 0644\non: \"yes\"\ntext: |\n  a\n  b\nbase: &b {{x: 1}}\ncopy: {{<<: *b}}\n"));
    let body: serde_json::Value = serde_json::from_slice(object.body.expose()).expect("JSON");
    assert_eq!((&body["mode"], &body["on"], &body["text"]), (&json!(420), &json!("yes"), &json!("a\nb\n")));
    assert_eq!(body["copy"], json!({ "x": 1 }));
    assert!(!format!("{object:?}").contains("yes"));
}

#[test]
fn names_file_document_and_mistake() {
    let cases = [
        ("", "a.yaml: there is no object in it"),
        ("# x\n---\n# y\n", "a.yaml: there is no object in it"),
        ("a: [", "a.yaml, document 1: it is no YAML at line 1"),
        ("--- # x\nkind: A\n---\na: 1\nb: [\n", "a.yaml, document 2: it is no YAML at line 5"),
        ("just words", "document 1: it is no object"),
        ("kind: A\n", "apiVersion is missing"),
        ("apiVersion: 1\nkind: A\n", "apiVersion is not a text"),
        ("apiVersion: ../v1\nkind: A\n", "apiVersion is none"),
        ("apiVersion: v1\nkind: A/B\n", "kind is none"),
        ("apiVersion: v1\nkind: A\n", "A: metadata is missing"),
        ("apiVersion: v1\nkind: A\nmetadata: {}\n", "A: metadata.name is missing"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: 7}\n", "A: metadata.name is not a text"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: a/b}\n", "A: metadata.name is no name"),
        ("apiVersion: v1\nkind: A\nmetadata: {generateName: a-}\n", "A: metadata.generateName"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: a, uid: x}\n", "A: metadata.uid belongs to"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: a, namespace: B}\n", "A a: metadata.namespace"),
        ("apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List}]\n", "item 1: a List cannot be in a List"),
        ("apiVersion: v1\nkind: List\nitems: 7\n", "document 1: it is no object"),
    ];
    for (text, expected) in cases {
        let error = read(text).expect_err(text);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let twice =
        read(&format!("{CONFIG}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: default}}\n"));
    assert_eq!(twice.expect_err("twice"), "a.yaml, document 2: ConfigMap a is in a.yaml, document 1 already");
    let broken = Manifests::read(&[file("a.json", "{\"a\": hush}")]).expect_err("no JSON");
    assert_eq!(broken[0].to_string(), "a.json, document 1: it is no JSON at line 1, column 7");
    let foreign = Manifests::read(&[ManifestFile { name: "b".into(), contents: Secret::new([0xff]) }]);
    assert_eq!(foreign.expect_err("no text")[0].to_string(), "b: it is not UTF-8");
}

#[test]
fn the_example_is_right() {
    let all = read(include_str!("../../../../docs/examples/flannel.yaml")).expect("reads");
    let kinds: Vec<&str> = (0..all.count()).filter_map(|number| all.get(number)).map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet"]);
}

#[test]
fn bounds_hold() {
    let long = file("a.yaml", &" ".repeat(FILE_BYTES_MAX + 1));
    assert!(Manifests::read(std::slice::from_ref(&long)).expect_err("long")[0].why.contains("longer than"));
    assert!(Manifests::read(&vec![long; 3]).expect_err("long")[0].why.contains("files of"));
    let many: String =
        (0..=OBJECTS_MAX).map(|n| format!("---\n{}", CONFIG.replace("name: a", &format!("name: a{n}")))).collect();
    assert!(read(&many).expect_err("many").contains("2001 objects; 2000 are the most"));
    let wrong = "---\nx: 1\n".repeat(100);
    assert_eq!(read(&wrong).expect_err("wrong").lines().count(), ERRORS_MAX);
}

#[test]
fn paths_are_those_of_the_api_server() {
    let list = json!({ "resources": [
        { "name": "daemonsets", "namespaced": true, "kind": "DaemonSet", "verbs": ["get", "patch"] },
        { "name": "daemonsets/status", "namespaced": true, "kind": "DaemonSet", "verbs": ["get", "patch"] },
        { "name": "../x", "namespaced": true, "kind": "Odd", "verbs": ["patch"] },
        { "name": "reviews", "namespaced": false, "kind": "Review", "verbs": ["create"] },
    ]});
    let apps = Discovery::read(200, list.to_string().as_bytes());
    let object = |kind: &str| one(&format!("apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: 'a:b+c'}}\n"));
    let daemon_set = object("DaemonSet");
    let resource = apps.resource(&daemon_set).expect("is served");
    assert_eq!(discovery_path(&daemon_set.api_version), "/apis/apps/v1");
    let path = "/apis/apps/v1/namespaces/default/daemonsets/a:b%2Bc?fieldManager=muster&force=true";
    assert_eq!(object_path(&daemon_set, resource), path);
    for kind in ["Odd", "Review", "Missing"] {
        let missing = apps.resource(&object(kind)).expect_err(kind);
        assert_eq!(missing, format!("the API server does not serve {kind} of apps/v1 yet"));
    }
    let namespace = one("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n");
    let cluster = Resource { plural: "namespaces".to_owned(), namespaced: false };
    assert_eq!(object_path(&namespace, &cluster), "/api/v1/namespaces/a?fieldManager=muster&force=true");
    assert!(Discovery::read(404, b"").resource(&daemon_set).expect_err("none").contains("does not serve"));
    assert!(Discovery::read(503, b"").resource(&daemon_set).expect_err("none").contains("status 503"));
    assert!(Discovery::read(200, b"<").resource(&daemon_set).expect_err("none").contains("not JSON"));
}

#[test]
fn answers_are_told_apart() {
    let object = one(CONFIG);
    let status = |code: u16, message: &str, details: serde_json::Value| {
        let body = json!({ "kind": "Status", "code": code, "message": message, "details": details }).to_string();
        judge(&object, code, body.as_bytes())
    };
    let missing_namespace = json!({ "name": "pets", "kind": "namespaces" });
    let terminating = json!({ "causes": [{ "reason": "NamespaceTerminating" }] });
    let later = [
        status(404, "namespaces \"pets\" not found", missing_namespace),
        status(404, "the server could not find the requested resource", json!({})),
        judge(&object, 404, b"404 page not found"),
        status(403, "unable to create new content in namespace pets", terminating),
        status(403, "error looking up service account pets/default", json!({})),
        status(409, "Operation cannot be fulfilled", json!({})),
        status(429, "too many requests", json!({})),
        status(500, "failed calling webhook \"a.b.c\": connection refused", json!({})),
        judge(&object, 503, b""),
        judge(&object, 302, b""),
    ];
    for answer in later {
        assert!(matches!(answer, Applied::Later(_)), "{answer:?}");
    }
    let refused = [
        status(400, "metadata.managedFields must be nil", json!({})),
        status(401, "Unauthorized", json!({})),
        status(403, "forbidden", json!({})),
        status(404, "dogs \"rex\" not found", json!({ "name": "rex", "kind": "dogs" })),
        status(422, "is invalid", json!({})),
        status(500, "failed to create typed patch object (x): .spec.y: field not declared in schema", json!({})),
    ];
    for answer in refused {
        assert!(matches!(answer, Applied::Refused(_)), "{answer:?}");
    }
    assert_eq!(judge(&object, 201, b"{}"), Applied::Done);
    assert_eq!(judge(&object, 422, b""), Applied::Refused("status 422".into()));
}

#[test]
fn what_a_secret_holds_is_not_quoted() {
    let secret = one("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {key: hush}\n");
    let body = json!({
        "message": "Secret \"a\" is invalid: type: Invalid value: \"hush\"", "reason": "Invalid",
        "details": { "causes": [{ "field": "type", "message": "hush" }] },
    });
    let refused = judge(&secret, 422, body.to_string().as_bytes());
    assert_eq!(refused, Applied::Refused("status 422: Invalid type".into()));
    let token = json!({ "message": "token abcdef.0123456789abcdef in a ConfigMap" }).to_string();
    let refused = judge(&one(CONFIG), 400, token.as_bytes());
    assert_eq!(refused, Applied::Refused("status 400: token [redacted] in a ConfigMap".into()));
}

proptest! {
    #[test]
    fn never_panics(text in "[ -~\n\t]{0,300}", status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&text);
        let _ = Manifests::read(&[file("a.json", &text)]);
        let _ = Discovery::read(status, &body);
        if let Applied::Later(why) | Applied::Refused(why) = judge(&one(CONFIG), status, &body) {
            prop_assert!(why.chars().count() <= 330);
        }
    }
}
