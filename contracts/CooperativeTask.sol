// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title A market for models trained on private data (Mendis et al., "Blockchain as a Service", III-A).
/// @notice An initiator pays for models, contributors announce them, drawn verifiers fuse, measure and vote, and the
/// majority decides. No owner, no upgrade, no oracle: the paper's Oraclize fetched the evaluations from a web page;
/// here every evaluation is a transaction of the verifier who made it, committed before any other is known.
contract CooperativeTask {
    /// What the initiator fixes for good. Shares are basis points of the verification rows.
    struct Terms {
        uint64 closesSeconds; // no model is announced or judged after this
        uint32 commitSeconds;
        uint32 revealSeconds;
        uint32 rows; // of the verification sample
        uint16 fitness; // minimum acceptable fitness rate (MAFR)
        uint16 tolerance; // distance from the median within which a vote is paid
        uint8 reading; // 0 gain over the accepted fusion, 1 absolute accuracy of the fusion
        uint8 payment; // 0 votes within tolerance, 1 all who voted (the paper)
        uint8 models; // slots
        uint8 committee; // verifiers drawn for each model
        uint96 modelWei;
        uint96 voteWei;
        uint96 stakeWei; // locked by a verifier
        uint96 bondWei; // locked by a contributor with each model
    }

    struct Task {
        address initiator;
        uint8 announced; // models so far
        uint8 judged; // models before this place are decided
        uint32 accepted; // right answers of the fusion of all accepted models
        bool closed;
        uint256 heldWei; // what is left of the initiator's money
        Terms terms;
    }

    struct Model {
        address contributor;
        uint8 status;
        uint8 attempts;
        uint8 commits;
        uint8 reveals;
        uint64 drawableAfter; // block number
        uint64 commitUntil;
        uint64 revealUntil;
        bytes32 keyHash;
        bytes32 content;
    }

    struct Vote {
        bytes32 commitment;
        uint8 attempt;
        bool drawn;
        bool revealed;
        uint8 refusal; // 0 measured, else why the model could not be
        uint32 correct;
    }

    struct Verifier {
        bool enrolled;
        uint96 stakeWei;
        uint8 busy; // models that still await this verifier's vote
    }

    uint8 public constant ANNOUNCED = 1;
    uint8 public constant DRAWN = 2;
    uint8 public constant ACCEPTED = 3;
    uint8 public constant BELOW = 4;
    uint8 public constant REFUSED = 5;
    uint8 public constant UNDECIDED = 6;
    uint8 public constant GAIN = 0;
    uint8 public constant PAY_ALL = 1;

    uint256 public constant MAXIMUM_SPECIFICATION_BYTES = 16_384;
    uint256 public constant MAXIMUM_VERIFIERS = 64;
    uint256 public constant MAXIMUM_COMMITTEE = 15;
    uint256 public constant MAXIMUM_MODELS = 16;
    uint256 public constant MAXIMUM_SEALED_BYTES = 256;
    /// @notice A model whose committee stays silent is drawn for again this often in all.
    uint256 public constant ATTEMPTS = 3;

    mapping(bytes32 => Task) private tasks;
    mapping(bytes32 => mapping(uint8 => Model)) private models;
    mapping(bytes32 => mapping(uint8 => address[])) private committees;
    mapping(bytes32 => mapping(uint8 => mapping(address => Vote))) private votes;
    mapping(bytes32 => address[]) private enrolled;
    mapping(bytes32 => mapping(address => Verifier)) private verifiers;
    mapping(bytes32 => bool) private contents;
    /// @notice What an account may pull with `withdraw`; nothing is ever pushed, so no payee can stop a task.
    mapping(address => uint256) public withdrawable;
    uint256 public counter;

    event TaskAnnounced(bytes32 indexed taskId, address indexed initiator, Terms terms, bytes publicKey, bytes specification);
    event VerifierEnrolled(bytes32 indexed taskId, address indexed verifier, bytes publicKey);
    event VerifierResigned(bytes32 indexed taskId, address indexed verifier);
    event ModelAnnounced(
        bytes32 indexed taskId, uint8 indexed place, address indexed contributor, bytes cid, bytes32 keyHash, bytes publicKey
    );
    event CommitteeDrawn(bytes32 indexed taskId, uint8 indexed place, address[] committee);
    event KeySealed(
        bytes32 indexed taskId, uint8 indexed place, address indexed recipient, address sender, bytes sealedKey
    );
    event VoteCommitted(bytes32 indexed taskId, uint8 indexed place, address indexed verifier);
    event VoteRevealed(
        bytes32 indexed taskId, uint8 indexed place, address indexed verifier, uint32 correct, uint8 refusal
    );
    event ModelJudged(bytes32 indexed taskId, uint8 indexed place, uint8 status, uint32 correct, uint8 paidVotes);
    event TaskClosed(bytes32 indexed taskId, uint256 refundWei);

    error TermsWrong();
    error ValueMismatch(uint256 expectedWei, uint256 sentWei);
    error SizeWrong(uint256 sizeBytes);
    error PublicKeyWrong();
    error TaskUnknown();
    error TaskOver();
    error TaskOpen();
    error Full();
    error EnrolledAlready();
    error NotEnrolled();
    error VoteOutstanding();
    error ModelKnown();
    error NotNext();
    error TooEarly();
    error TooLate();
    error TooFewVerifiers();
    error StatusWrong(uint8 status);
    error NotDrawn();
    error VotedAlready();
    error OpeningWrong();
    error NotEntitled();
    error NothingToWithdraw();
    error WithdrawalFailed();

    /// @notice Announce a task; the value pays every slot's model and committee, what is not spent comes back.
    function announce(Terms calldata terms, bytes calldata publicKey, bytes calldata specification)
        external
        payable
        returns (bytes32 taskId)
    {
        if (specification.length == 0 || specification.length > MAXIMUM_SPECIFICATION_BYTES) {
            revert SizeWrong(specification.length);
        }
        if (
            terms.closesSeconds <= block.timestamp || terms.commitSeconds == 0 || terms.revealSeconds == 0
                || terms.rows == 0 || terms.fitness > 10_000 || terms.tolerance > 10_000 || terms.reading > 1
                || terms.payment > 1 || terms.models == 0 || terms.models > MAXIMUM_MODELS || terms.committee == 0
                || terms.committee > MAXIMUM_COMMITTEE || terms.modelWei == 0 || terms.stakeWei < terms.voteWei
        ) revert TermsWrong();
        _checkKey(publicKey);
        uint256 expectedWei = uint256(terms.models) * (uint256(terms.modelWei) + uint256(terms.committee) * terms.voteWei);
        _checkValue(expectedWei);
        taskId = keccak256(abi.encode(block.chainid, address(this), msg.sender, counter++));
        Task storage task = tasks[taskId];
        task.initiator = msg.sender;
        task.heldWei = expectedWei;
        task.terms = terms;
        emit TaskAnnounced(taskId, msg.sender, terms, publicKey, specification);
    }

    /// @notice Offer to verify; the stake comes back with `resign`. Joining late is possible while the task is open.
    function enrol(bytes32 taskId, bytes calldata publicKey) external payable {
        Task storage task = _open(taskId);
        if (verifiers[taskId][msg.sender].enrolled) revert EnrolledAlready();
        if (enrolled[taskId].length == MAXIMUM_VERIFIERS) revert Full();
        _checkKey(publicKey);
        if (task.terms.stakeWei == 0) revert TermsWrong();
        _checkValue(task.terms.stakeWei);
        verifiers[taskId][msg.sender] = Verifier(true, uint96(msg.value), 0);
        enrolled[taskId].push(msg.sender);
        emit VerifierEnrolled(taskId, msg.sender, publicKey);
    }

    /// @notice Stop verifying and take the stake back; not while a vote is owed.
    function resign(bytes32 taskId) external {
        Verifier storage verifier = verifiers[taskId][msg.sender];
        if (verifier.busy != 0) revert VoteOutstanding();
        address[] storage list = enrolled[taskId];
        uint256 index = 0;
        while (index < list.length && list[index] != msg.sender) ++index;
        if (index == list.length) revert NotEnrolled();
        list[index] = list[list.length - 1];
        list.pop();
        withdrawable[msg.sender] += verifier.stakeWei;
        delete verifiers[taskId][msg.sender];
        emit VerifierResigned(taskId, msg.sender);
    }

    /// @notice Announce an encrypted model by its CID, with the hash of its key; models are judged in this order.
    function announceModel(bytes32 taskId, bytes calldata cid, bytes32 keyHash, bytes calldata publicKey)
        external
        payable
        returns (uint8 place)
    {
        Task storage task = _open(taskId);
        if (task.announced == task.terms.models) revert Full();
        if (cid.length != 36) revert SizeWrong(cid.length);
        _checkKey(publicKey);
        _checkValue(task.terms.bondWei);
        bytes32 content = keccak256(abi.encode(taskId, cid));
        if (contents[content]) revert ModelKnown();
        contents[content] = true;
        place = task.announced++;
        Model storage model = models[taskId][place];
        model.contributor = msg.sender;
        model.status = ANNOUNCED;
        model.drawableAfter = uint64(block.number);
        model.keyHash = keyHash;
        model.content = content;
        emit ModelAnnounced(taskId, place, msg.sender, cid, keyHash, publicKey);
    }

    /// @notice Draw the committee of the next model by prevRandao of a later block than its announcement; anyone may.
    function draw(bytes32 taskId, uint8 place) external {
        Task storage task = _open(taskId);
        Model storage model = models[taskId][place];
        if (place != task.judged) revert NotNext();
        if (model.status != ANNOUNCED) revert StatusWrong(model.status);
        if (block.number <= model.drawableAfter) revert TooEarly();
        address[] memory pool = _eligible(taskId, task.terms.voteWei, model.contributor);
        uint256 size = task.terms.committee;
        model.attempts++;
        if (pool.length < size) revert TooFewVerifiers();
        uint256 seed = uint256(keccak256(abi.encode(block.prevrandao, taskId, place, model.attempts)));
        address[] memory chosen = new address[](size);
        for (uint256 index = 0; index < size; ++index) {
            uint256 other = index + (uint256(keccak256(abi.encode(seed, index))) % (pool.length - index));
            (pool[index], pool[other]) = (pool[other], pool[index]);
            chosen[index] = pool[index];
            votes[taskId][place][pool[index]] = Vote(0, model.attempts, true, false, 0, 0);
            verifiers[taskId][pool[index]].busy++;
        }
        model.status = DRAWN;
        model.commits = 0;
        model.reveals = 0;
        model.commitUntil = uint64(block.timestamp) + task.terms.commitSeconds;
        model.revealUntil = model.commitUntil + task.terms.revealSeconds;
        committees[taskId][place] = chosen;
        emit CommitteeDrawn(taskId, place, chosen);
    }

    /// @notice Hand a model's key, encrypted, to somebody: its contributor may, and whoever was drawn to judge it.
    /// @dev Committee members hold the key to measure, so a contributor cannot take the reward and keep the key.
    function sealKey(bytes32 taskId, uint8 place, address recipient, bytes calldata sealedKey) external {
        if (sealedKey.length == 0 || sealedKey.length > MAXIMUM_SEALED_BYTES) revert SizeWrong(sealedKey.length);
        if (msg.sender != models[taskId][place].contributor && !votes[taskId][place][msg.sender].drawn) {
            revert NotEntitled();
        }
        emit KeySealed(taskId, place, recipient, msg.sender, sealedKey);
    }

    /// @notice Commit to a vote: keccak256(abi.encode(chain, contract, task, place, voter, correct, refusal, salt)).
    function commitVote(bytes32 taskId, uint8 place, bytes32 commitment) external {
        Model storage model = models[taskId][place];
        Vote storage vote = votes[taskId][place][msg.sender];
        if (model.status != DRAWN) revert StatusWrong(model.status);
        if (!vote.drawn || vote.attempt != model.attempts) revert NotDrawn();
        if (block.timestamp > model.commitUntil) revert TooLate();
        if (vote.commitment != 0 || commitment == 0) revert VotedAlready();
        vote.commitment = commitment;
        model.commits++;
        emit VoteCommitted(taskId, place, msg.sender);
    }

    /// @notice Open a vote once everybody has committed or the time for it is over.
    function revealVote(bytes32 taskId, uint8 place, uint32 correct, uint8 refusal, bytes32 salt) external {
        Task storage task = tasks[taskId];
        Model storage model = models[taskId][place];
        Vote storage vote = votes[taskId][place][msg.sender];
        if (model.status != DRAWN) revert StatusWrong(model.status);
        if (!vote.drawn || vote.attempt != model.attempts) revert NotDrawn();
        if (vote.revealed) revert VotedAlready();
        if (model.commits < task.terms.committee && block.timestamp <= model.commitUntil) revert TooEarly();
        if (block.timestamp > model.revealUntil) revert TooLate();
        bytes32 opened =
            keccak256(abi.encode(block.chainid, address(this), taskId, place, msg.sender, correct, refusal, salt));
        if (opened != vote.commitment || correct > task.terms.rows || (refusal != 0 && correct != 0)) {
            revert OpeningWrong();
        }
        vote.revealed = true;
        vote.correct = correct;
        vote.refusal = refusal;
        model.reveals++;
        emit VoteRevealed(taskId, place, msg.sender, correct, refusal);
    }

    /// @notice Decide a model by majority and pay; anyone may call once all have revealed or the time is over.
    function judge(bytes32 taskId, uint8 place) external {
        Task storage task = tasks[taskId];
        Model storage model = models[taskId][place];
        if (model.status != DRAWN) revert StatusWrong(model.status);
        if (model.reveals < task.terms.committee && block.timestamp <= model.revealUntil) revert TooEarly();
        address[] memory committee = committees[taskId][place];
        if (uint256(model.reveals) * 2 <= committee.length) {
            _fineSilent(task, taskId, place, committee);
            model.drawableAfter = uint64(block.number);
            if (model.attempts < ATTEMPTS) {
                model.status = ANNOUNCED;
                emit ModelJudged(taskId, place, ANNOUNCED, 0, 0);
            } else {
                _finish(task, taskId, place, UNDECIDED, 0, 0);
            }
            return;
        }
        (uint8 status, uint32 median) = _count(task, taskId, place, committee);
        uint8 paid = _payVotes(task, taskId, place, committee, status, median);
        _fineSilent(task, taskId, place, committee);
        _finish(task, taskId, place, status, median, paid);
    }

    /// @notice End a task whose models are all decided or whose time is over; what is left goes to the initiator.
    function close(bytes32 taskId) external {
        Task storage task = tasks[taskId];
        if (task.initiator == address(0)) revert TaskUnknown();
        if (task.closed) revert TaskOver();
        bool full = task.judged == task.terms.models;
        if (!full && block.timestamp <= task.terms.closesSeconds) revert TaskOpen();
        if (!full && models[taskId][task.judged].status == DRAWN) revert VoteOutstanding();
        task.closed = true;
        for (uint8 place = task.judged; place < task.announced; ++place) {
            Model storage model = models[taskId][place];
            model.status = UNDECIDED;
            withdrawable[model.contributor] += task.terms.bondWei;
            emit ModelJudged(taskId, place, UNDECIDED, 0, 0);
        }
        uint256 refundWei = task.heldWei;
        task.heldWei = 0;
        withdrawable[task.initiator] += refundWei;
        emit TaskClosed(taskId, refundWei);
    }

    /// @notice Pull what one has earned, staked or got back.
    function withdraw() external {
        uint256 amountWei = withdrawable[msg.sender];
        if (amountWei == 0) revert NothingToWithdraw();
        withdrawable[msg.sender] = 0;
        (bool sent,) = msg.sender.call{value: amountWei}("");
        if (!sent) revert WithdrawalFailed();
    }

    /// @notice Show a task: who asked, how far it is, what its accepted fusion scores, what is left of its money.
    function taskOf(bytes32 taskId)
        external
        view
        returns (address initiator, uint8 announced, uint8 judged, uint32 accepted, bool closed, uint256 heldWei)
    {
        Task storage task = tasks[taskId];
        return (task.initiator, task.announced, task.judged, task.accepted, task.closed, task.heldWei);
    }

    /// @notice Show a model: whose it is and where its judgement stands.
    function modelOf(bytes32 taskId, uint8 place) external view returns (Model memory) {
        return models[taskId][place];
    }

    /// @notice Show the verifiers drawn last for a model.
    function committeeOf(bytes32 taskId, uint8 place) external view returns (address[] memory) {
        return committees[taskId][place];
    }

    /// @notice Show a vote.
    function voteOf(bytes32 taskId, uint8 place, address verifier) external view returns (Vote memory) {
        return votes[taskId][place][verifier];
    }

    /// @notice Show a verifier's stake and how many votes it owes.
    function verifierOf(bytes32 taskId, address verifier) external view returns (Verifier memory) {
        return verifiers[taskId][verifier];
    }

    /// BAAS-R3: a vote approves when the fusion gains the MAFR over the accepted one, or reaches it on its own.
    function _approves(Task storage task, Vote storage vote) private view returns (bool) {
        if (vote.refusal != 0) return false;
        uint256 needed = uint256(task.terms.fitness) * task.terms.rows;
        if (task.terms.reading == GAIN) needed += uint256(task.accepted) * 10_000;
        return uint256(vote.correct) * 10_000 >= needed;
    }

    function _count(Task storage task, bytes32 taskId, uint8 place, address[] memory committee)
        private
        view
        returns (uint8 status, uint32 median)
    {
        uint32[] memory measured = new uint32[](committee.length);
        uint256 approving;
        uint256 found;
        uint256 revealed;
        for (uint256 index = 0; index < committee.length; ++index) {
            Vote storage vote = votes[taskId][place][committee[index]];
            if (!vote.revealed) continue;
            ++revealed;
            if (_approves(task, vote)) ++approving;
            if (vote.refusal != 0) continue;
            uint256 slot = found++;
            for (; slot > 0 && measured[slot - 1] > vote.correct; --slot) {
                measured[slot] = measured[slot - 1];
            }
            measured[slot] = vote.correct;
        }
        if (found * 2 <= revealed) return (REFUSED, 0);
        median = measured[(found - 1) / 2];
        status = approving * 2 > revealed ? ACCEPTED : BELOW;
    }

    /// By default a vote is paid when it agrees with the majority on whether the model can be measured at all, and its
    /// count lies within the tolerance of the median; a vote that strays is fined. The paper pays all who voted.
    function _payVotes(
        Task storage task,
        bytes32 taskId,
        uint8 place,
        address[] memory committee,
        uint8 status,
        uint32 median
    ) private returns (uint8 paid) {
        for (uint256 index = 0; index < committee.length; ++index) {
            Vote storage vote = votes[taskId][place][committee[index]];
            if (!vote.revealed) continue;
            bool agrees = (vote.refusal != 0) == (status == REFUSED);
            if (agrees && status != REFUSED) {
                uint256 distance = vote.correct > median ? vote.correct - median : median - vote.correct;
                agrees = distance * 10_000 <= uint256(task.terms.tolerance) * task.terms.rows;
            }
            if (agrees || task.terms.payment == PAY_ALL) {
                ++paid;
                task.heldWei -= task.terms.voteWei;
                withdrawable[committee[index]] += task.terms.voteWei;
            } else {
                _fine(task, taskId, committee[index]);
            }
        }
    }

    function _fineSilent(Task storage task, bytes32 taskId, uint8 place, address[] memory committee) private {
        for (uint256 index = 0; index < committee.length; ++index) {
            verifiers[taskId][committee[index]].busy--;
            if (!votes[taskId][place][committee[index]].revealed) _fine(task, taskId, committee[index]);
        }
    }

    /// One vote's pay, to the initiator, whose task was held up.
    function _fine(Task storage task, bytes32 taskId, address verifier) private {
        Verifier storage staked = verifiers[taskId][verifier];
        uint96 amountWei = staked.stakeWei < task.terms.voteWei ? staked.stakeWei : task.terms.voteWei;
        staked.stakeWei -= amountWei;
        withdrawable[task.initiator] += amountWei;
    }

    function _finish(Task storage task, bytes32 taskId, uint8 place, uint8 status, uint32 median, uint8 paid) private {
        Model storage model = models[taskId][place];
        model.status = status;
        task.judged = place + 1;
        if (status == ACCEPTED) {
            task.accepted = median;
            task.heldWei -= task.terms.modelWei;
            withdrawable[model.contributor] += task.terms.modelWei;
        }
        // Only a model that the majority could not even measure costs its contributor the bond.
        withdrawable[status == REFUSED ? task.initiator : model.contributor] += task.terms.bondWei;
        emit ModelJudged(taskId, place, status, median, paid);
    }

    /// A verifier who cannot pay a fine any more, or who judges its own model, is not drawn.
    function _eligible(bytes32 taskId, uint96 leastWei, address contributor) private view returns (address[] memory pool) {
        address[] storage list = enrolled[taskId];
        pool = new address[](list.length);
        uint256 size;
        for (uint256 index = 0; index < list.length; ++index) {
            uint96 stakeWei = verifiers[taskId][list[index]].stakeWei;
            if (stakeWei >= leastWei && stakeWei != 0 && list[index] != contributor) pool[size++] = list[index];
        }
        assembly ("memory-safe") {
            mstore(pool, size)
        }
    }

    function _open(bytes32 taskId) private view returns (Task storage task) {
        task = tasks[taskId];
        if (task.initiator == address(0)) revert TaskUnknown();
        if (task.closed || block.timestamp > task.terms.closesSeconds) revert TaskOver();
    }

    function _checkValue(uint256 expectedWei) private view {
        if (msg.value != expectedWei) revert ValueMismatch(expectedWei, msg.value);
    }

    /// The key that others encrypt for is the sender's own, so nobody can be made to encrypt for a stranger.
    function _checkKey(bytes calldata publicKey) private view {
        if (publicKey.length != 64 || address(uint160(uint256(keccak256(publicKey)))) != msg.sender) {
            revert PublicKeyWrong();
        }
    }
}
