use std::sync::Barrier;

use super::*;

const NEVER: &dyn Fn() -> bool = &|| false;

fn request<'a>() -> Request<'a> {
    Request { command: &[], waits_for_own_job: false, stopped: NEVER }
}

fn take(folder: &Path) -> Result<Owner> {
    Owner::take_with(folder, &request(), Duration::from_millis(20))
}

/// The record of this process, as another machine would have written it, or one whose process has ended.
fn plant(folder: &Path, change: impl Fn(&str) -> String) -> String {
    let record = OwnerRecord::of_this_process(&[], Duration::from_millis(20));
    let text = String::from_utf8(record.to_bytes()).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text);
    std::fs::write(folder.join(names::OWNER), &changed).unwrap();
    record.token
}

fn elsewhere(text: &str) -> String {
    text.replace(&format!("\"host\":\"{}\"", World::host()), "\"host\":\"node7\"")
}

fn ended(text: &str) -> String {
    text.replace("\"started\":", "\"started\":9")
}

fn files_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_folder_has_one_owner_until_it_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("a/b/run");
    let mut owner = take(&run).unwrap();
    owner.claim().check().unwrap();
    owner.create_folder(&run.join("checkpoints")).unwrap();
    let message = take(&run).unwrap_err().to_string();
    assert!(
        message.contains("is held by a running job: process") && message.contains("since 20"),
        "{message}"
    );
    owner.claim().check().unwrap();
    let claim = owner.claim().clone();
    drop(owner);
    assert_eq!(files_in(folder.path()), [""; 0], "nothing stays of a run that wrote nothing");
    assert!(claim.check().unwrap_err().to_string().contains("was removed"));
    let owner = take(&run).unwrap();
    assert_eq!(files_in(&run), [names::OWNER]);
    std::fs::write(run.join("map.mrc"), "map").unwrap();
    drop(owner);
    assert_eq!(files_in(&run), ["map.mrc"]);
}

#[test]
fn an_owner_that_has_ended_is_replaced_by_exactly_one() {
    const CONTENDERS: usize = 8;
    for round in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        // In some rounds the one that replaced it has ended as well, before it was through.
        let dead = plant(folder.path(), ended);
        if round % 2 == 1 {
            let aside = tempfile::tempdir().unwrap();
            plant(aside.path(), ended);
            std::fs::rename(aside.path().join(names::OWNER), successor(folder.path(), &dead)).unwrap();
        }
        let start = Barrier::new(CONTENDERS);
        let owners: Vec<Result<Owner>> = std::thread::scope(|scope| {
            let contend = || {
                start.wait();
                take(folder.path())
            };
            let threads: Vec<_> = (0..CONTENDERS).map(|_| scope.spawn(contend)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let held: Vec<&Owner> = owners.iter().flatten().collect();
        assert_eq!(held.len(), 1, "{owners:?}");
        held[0].claim().check().unwrap();
        assert_eq!(files_in(folder.path()), [names::OWNER]);
        for refused in owners.iter().filter_map(|owner| owner.as_ref().err()) {
            assert!(refused.to_string().contains("is held by a running job"), "{refused}");
        }
    }
}

#[test]
fn on_another_machine_the_heartbeat_decides() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), elsewhere);
    let record = OpenOptions::new().write(true).open(folder.path().join(names::OWNER)).unwrap();
    let beats = start_heartbeat(record, Duration::from_millis(5));
    let message = take(folder.path()).unwrap_err().to_string();
    assert!(message.contains("is held by a running job") && message.contains("on node7"), "{message}");
    drop(beats);
    std::thread::sleep(Duration::from_millis(20));
    let owner = take(folder.path()).unwrap();
    owner.claim().check().unwrap();
}

#[test]
fn an_owner_that_was_replaced_finds_out_and_leaves_the_new_record() {
    let folder = tempfile::tempdir().unwrap();
    let suspended = take(folder.path()).unwrap();
    let path = folder.path().join(names::OWNER);
    let text = std::fs::read_to_string(&path).unwrap();
    // To this process, which is the owner, it looks as if it had ended.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, ended(&text)).unwrap();
    let next = take(folder.path()).unwrap();
    let message = suspended.claim().check().unwrap_err().to_string();
    assert!(
        message.contains("was taken over by process") && message.contains("nothing more is written"),
        "{message}"
    );
    // Its heartbeat no longer reaches the file.
    let seen = OwnerRecord::read(&path).unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop(suspended);
    next.claim().check().unwrap();
    assert!(
        seen.beats_until(&OwnerRecord::read(&path).unwrap().unwrap()),
        "the new owner's heartbeat is written"
    );
}

#[test]
fn a_record_that_is_no_file_of_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(names::OWNER);
    let target = folder.path().join("target");
    std::fs::write(&target, "mine").unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(take(folder.path()).unwrap_err().to_string().contains("does not record who holds"));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine too").unwrap();
    assert!(take(folder.path()).unwrap_err().to_string().contains("does not record who holds"));
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine too");
}

#[test]
fn a_signal_ends_the_wait() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), |text| elsewhere(text).replace("\"heartbeat_ms\":20", "\"heartbeat_ms\":60000"));
    let request = Request { stopped: &|| true, ..request() };
    let message = Owner::take_with(folder.path(), &request, HEARTBEAT).unwrap_err().to_string();
    assert!(message.contains("a signal has stopped the job"), "{message}");
}
